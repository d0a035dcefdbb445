"""What each system brings to training and test, one module a system."""
