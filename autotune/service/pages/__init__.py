"""The pages of the service: what is deployed, what waits, why, and forms for those who decide."""
