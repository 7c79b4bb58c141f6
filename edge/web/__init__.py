"""The dashboard: an MQTT subscriber with pages. The daemon never imports it."""
