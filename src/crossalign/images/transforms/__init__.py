"""Formats of transform files, each parsed into the linear maps that it holds, and those made rigid."""
