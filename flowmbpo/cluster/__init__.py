"""Where runs are trained when one shell is not enough: Slurm through submitit, or a bounded queue on this machine.

Not here: training itself. A job is the installed `flowmbpo run` in a process of its own.
"""
