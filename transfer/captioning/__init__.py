"""Image captioning on MS-COCO trees from any backbone."""
