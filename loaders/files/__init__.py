"""What a file says before its tensors are read: headers, indexes, pickles."""
