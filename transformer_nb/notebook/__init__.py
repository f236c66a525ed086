"""What the pages show: figures, questions and exercises."""
