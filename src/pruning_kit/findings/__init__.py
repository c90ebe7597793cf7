"""What a stored run says, in numbers. No torch."""
