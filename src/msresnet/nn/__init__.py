"""Parts of networks: operators, blocks, shortcuts, stems, fusion, heads, folding."""
