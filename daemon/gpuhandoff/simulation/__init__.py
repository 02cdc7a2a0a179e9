"""A simulated machine behind the same doors as the real one, with the kernel's unpleasant behaviour included.

What it does is what the facts measured on real kernels say it does; each rule cites its fact. It is part of the product
(`--simulate`) and what the tests stand on.
"""
