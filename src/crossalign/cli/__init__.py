"""The command line: each command parses, calls one function and prints the result.

`main.py` declares the commands and imports nothing heavy; what a command does stands in a module of its own.
"""
