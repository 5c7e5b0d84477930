"""From the host to a GPU: staging, copies, events, and the devices behind one seam."""
