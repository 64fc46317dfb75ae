"""Tasks: pools of work in fair shares, and their schedules."""
