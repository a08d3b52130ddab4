"""Types, errors, configuration, seeding and measurement: what every other layer stands on."""
