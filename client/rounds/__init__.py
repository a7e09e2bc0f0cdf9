"""What a site does when a round asks: it descends along gradients, or adds its sums to what weights are solved from."""
