"""What each system brings to training and test: a folder a paper, and what all of them share."""
