"Text files, tokenizer files and token files; and `series.txt`, the prose of the series."
