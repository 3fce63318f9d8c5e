"""What is done to samples between the file and the batch."""
