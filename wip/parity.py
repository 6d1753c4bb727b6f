import numpy as np, torch, time, sys
sys.path.insert(0,'.')
from swinir.network import library
print(library.compile_library())
lib=library.find_library(); print(lib)
from swinir.network.compiled_network import CompiledNetwork
from swinir.network.shapes import parameter_shapes
from swinir.network.reference import run_network
from swinir.zoo import VARIANTS
from testing.networks import reference_tensors, CASES, parity_config, PARITY
from swinir.network.swinir import SwinIR
for row in VARIANTS.values():
    with torch.device("meta"): net=SwinIR(**row.config)
    a={n:tuple(p.shape) for n,p in net.named_parameters()}
    assert a==parameter_shapes(row.config), row.name
for case in CASES:
    cfg=parity_config(case)
    w={n:t.numpy() for n,t in reference_tensors(cfg).items()}
    with np.load(PARITY/f"{case}.npz") as d: x,y=d["input"].transpose(0,2,3,1),d["output"].transpose(0,2,3,1)
    t=time.time(); net=CompiledNetwork(cfg,w,lib,2); 
    out=net.forward(np.ascontiguousarray(x)); 
    e=np.abs(out-y).max()/np.abs(y).max()
    r=None
    if not any(s%cfg["window_size"] for s in x.shape[1:3]): r=np.abs(run_network(cfg,w,x)-y).max()/np.abs(y).max()
    print(case,x.shape,out.shape,y.shape,e,r)
