"""What a site computes from its bank: neighbour lists, training, tokens, evaluation, the state's digest."""
