"""Programs that run inside an image build, as scripts. They import nothing but Python's own library."""
