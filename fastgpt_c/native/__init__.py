"""The compiled library: its functions, what they take, and the exceptions that its status codes become."""
