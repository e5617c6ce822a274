"""MuJoCo: physics of many robots at once, their sensors, and drawing."""
