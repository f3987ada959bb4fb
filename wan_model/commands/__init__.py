"""What each `wan` command does once its arguments are read; imported by the command alone."""
