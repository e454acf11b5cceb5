"""What the operator can do and see, one flow a file."""
