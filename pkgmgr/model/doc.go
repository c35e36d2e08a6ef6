// Package model parses references to models ([ParseRef]), gets the files of a model from a
// model hub ([Hub], [Choose]), and estimates the memory usage of a model from the header of
// its GGUF file or from the config.json of its safetensors ([EstimateMemory]). It does not
// store models.
package model
