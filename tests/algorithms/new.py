"""The critic finds the values of a chain whose values are known in closed form."""
