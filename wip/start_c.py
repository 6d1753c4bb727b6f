import sys,time,os; sys.path.insert(0,'.')
import numpy as np, resource
from safetensors.numpy import load
from swinir.network import library
from swinir.network.compiled_network import CompiledNetwork
from swinir.zoo import VARIANTS
lib=library.find_library()
net=CompiledNetwork(VARIANTS["compact_x4"].config,load(open("swinir/bundled/compact_x4.safetensors","rb").read()),lib,2)
net.forward(np.zeros((1,64,64,3),np.float32))
print("C    cpu %.2f s  rss %.0f MB torch %s"%(time.process_time(),resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024,'torch' in sys.modules))
