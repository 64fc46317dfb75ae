"""Jobs: put into tubes, reserved, done, given back or cancelled."""
