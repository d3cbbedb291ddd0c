"""Which minimum does stochastic gradient descent select, why, and how do you change it?"""
