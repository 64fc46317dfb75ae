"""The deterministic simulator: production code over a clock, a network and a disk of ours."""
