"""Formats of transform files: ITK text, MATLAB and HDF5, and MINC."""
