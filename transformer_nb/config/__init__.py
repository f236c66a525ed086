"""What a model and its training are made of, by name: fields, checks and tables of parts."""
