"""The console of an officer or a site: on their own machine, with their own key."""
