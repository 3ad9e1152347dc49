"""Networks: encoder, dynamics (MLP or flow), heads, actor, critic. Plain torch; imports no other room.

Shape legend of the whole room: T time, B batch, O observation, Z latent, A action, E ensemble member, K substeps.
"""
