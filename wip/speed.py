import numpy as np, torch, time, sys
sys.path.insert(0,'.')
torch.set_num_threads(2)
from swinir.network import library
lib=library.find_library()
from swinir.inference.memory import keep_freed_memory
keep_freed_memory()
from swinir.network.compiled_network import CompiledNetwork
from swinir.zoo import VARIANTS
from testing.networks import reference_tensors, reference_network
T=int(sys.argv[1])
torch.set_num_threads(T)
for name,side,n in [("compact_x4",64,9),("compact_x4",256,3),("compact_color_denoise_25",256,3),("lightweight_x4",64,5),("real_x4",64,3)]:
    cfg=VARIANTS[name].config
    w={k:t.numpy() for k,t in reference_tensors(cfg).items()}
    net=CompiledNetwork(cfg,w,lib,T); tn=reference_network(cfg); tn.prepare()
    x=np.random.default_rng(0).random((1,side,side,3),dtype=np.float32)
    xt=torch.from_numpy(x).permute(0,3,1,2)
    a,b=[],[]
    with torch.inference_mode():
        net.forward(x); tn(xt)
        for _ in range(n):
            t=time.process_time(); net.forward(x); a.append(time.process_time()-t)
            t=time.process_time(); tn(xt); b.append(time.process_time()-t)
    print(name,side,"C %.1f ms torch %.1f ms  ratio C/torch %.3f (min %.3f)"%(1e3*np.median(a),1e3*np.median(b),np.median(np.array(a)/np.array(b)),min(a)/min(b)))
