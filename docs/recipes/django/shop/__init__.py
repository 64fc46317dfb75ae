"""A shop in which an order is paid once, by whichever server is asked."""
