"""What can go wrong, and drills that cause it on a user's machine and see whether what was promised holds."""
