"""What each command means for the person who sent it, sans-I/O."""
