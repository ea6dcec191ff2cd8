"""`reyes demo`: a simulated EC2, real leader and followers, real kernels, real packets."""
