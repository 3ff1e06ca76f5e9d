from hypothesis import settings

# No deadline: the machine may be busy. Derandomized: the same commit gives the same verdict.
settings.register_profile("subfour", deadline=None, derandomize=True)
settings.load_profile("subfour")
