"""What a stored run says, in words, tables and pictures. No torch."""
