import numpy as np, torch, time, sys
sys.path.insert(0,'.')
torch.set_num_threads(1)
from swinir.network import library
lib=library.find_library()
from swinir.inference.memory import keep_freed_memory
keep_freed_memory()
from swinir.network.compiled_network import PackedConvolution
rng=np.random.default_rng(0)
for i,o,s,sh in [(3,48,256,1),(48,48,256,1),(48,48,256,4),(48,48,64,1),(48,3,256,1),(60,60,128,1),(180,180,64,1),(180,64,64,1),(64,64,128,1)]:
    w=rng.standard_normal((o,i,3,3),np.float32); b=rng.standard_normal(o).astype(np.float32)
    c=PackedConvolution(w,b,shuffle=sh); x=rng.standard_normal((1,s,s,i),np.float32); r=rng.standard_normal((1,s,s,o),np.float32)
    tw,tb,tx=torch.from_numpy(w).contiguous(memory_format=torch.channels_last),torch.from_numpy(b),torch.from_numpy(x).permute(0,3,1,2)
    A,B=[],[]
    with torch.inference_mode():
      f=(lambda: torch.nn.functional.conv2d(tx,tw,tb,padding=1)) if sh==1 else (lambda: torch.nn.functional.pixel_shuffle(torch.nn.functional.conv2d(tx,tw,tb,padding=1),sh))
      c.run(lib,1,x,(1,s,s)); f()
      for _ in range(15):
        t=time.process_time(); c.run(lib,1,x,(1,s,s)); A.append(time.process_time()-t)
        t=time.process_time(); f(); B.append(time.process_time()-t)
    fl=2*9*i*o*s*s
    print(i,o,s,sh,"C %.2f ms (%.0f GF/s) torch %.2f ms (%.0f) ratio %.2f"%(1e3*min(A),fl/min(A)/1e9,1e3*min(B),fl/min(B)/1e9,min(A)/min(B)))
