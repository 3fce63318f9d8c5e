"""The service of a team: configurations over HTTP, studies that are asked for, and what is deployed."""
