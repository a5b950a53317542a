"""Weight files: this project's, matterport's, and ImageNet backbones."""
