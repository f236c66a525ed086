"""What generation needs beside its loop: the key-value cache, and what stands around a call."""
