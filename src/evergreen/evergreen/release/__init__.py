"""`evergreen release`: a model's way from a folder to the robots, through a registry or S3 and AWS IoT Greengrass.

Pure planning (`versions`, `waves`, `documents`, `history`, `outcome`) knows neither AWS nor a clock; `aws` is the only
place that speaks to AWS; `steps` join them, each with an undo.
"""
