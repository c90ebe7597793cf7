"""What a stored run says, in words, tables and figures. No torch."""
