"How fast, how small: this package beside others, on the machine at hand. `make bench`, or `python -m tests.benchmarks --help`."
