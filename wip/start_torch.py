import sys,time,os; sys.path.insert(0,'.')
import numpy as np, resource, torch
from swinir.weights.load import find_weights, load_network
from swinir.zoo import VARIANTS
net=load_network(VARIANTS["compact_x4"],find_weights(VARIANTS["compact_x4"],None)); net.prepare()
with torch.inference_mode(): net(torch.zeros(1,3,64,64))
print("torch cpu %.2f s  rss %.0f MB"%(time.process_time(),resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024))
