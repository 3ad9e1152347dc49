"""Learning: PWM and what it is made of. Knows no environment class beyond the `Step` contract and does no I/O.

Shape legend of the whole room: T time, B batch, N environments, O observation, Z latent, A action, E ensemble member.
"""
