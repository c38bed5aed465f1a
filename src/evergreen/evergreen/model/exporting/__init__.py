"""A foreign LeRobot checkpoint becomes a model: questions and answers, the folder, its ONNX graph, the proof."""
