"""A deployment on one machine: a coordinator and three hospitals as processes of their own."""
