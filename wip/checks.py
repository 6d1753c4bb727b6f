import sys; sys.path.insert(0,'/tmp/x')
import numpy as np, torch, time, ctypes
torch.set_num_threads(1)
sys.path.insert(0,'.')
from swinir.inference.memory import keep_freed_memory
keep_freed_memory()
from swinir.inference.engine import _check,_extremes
lib=ctypes.CDLL("/tmp/old.so")
P,N=ctypes.c_void_p,ctypes.c_int64
lib.scan_tiles.argtypes=[P,N,N,ctypes.c_float,P,P,P,P,N]
lib.measure_way_back.argtypes=[P,P,N,N,N,N,P,P,P,N]
class F(ctypes.Structure): _fields_=[("taps",N),("shift",N),("starts",P),("counts",P),("weights",P)]
def filt(n,scale):
    size=n*scale; support=2.0*scale
    starts=[];W=[]
    for i in range(n):
        c=scale*(i+.5); lo=max(int(c-support+.5),0); cnt=min(int(c+support+.5),size)-lo
        x=np.abs((np.arange(cnt)+lo-c+.5)/scale); a=-.5
        w=np.where(x<1,((a+2)*x-(a+3))*x*x+1,np.where(x<2,(((x-5)*x+8)*x-4)*a,0)); W.append(w/w.sum()); starts.append(lo)
    m=max(w.max() for w in W); p=0
    while p<22 and int(.5+m*(1<<(p+1)))<(1<<15): p+=1
    taps=max(map(len,W)); arr=np.zeros((n,taps),np.int32)
    for i,w in enumerate(W):
        v=w*(1<<p); arr[i,:len(w)]=np.where(v<0,np.trunc(v-.5),np.trunc(v+.5))
    st,ct=np.array(starts,np.int32),np.array([len(w) for w in W],np.int32)
    f=F(taps,p,st.ctypes.data,ct.ctypes.data,arr.ctypes.data); f.keep=(st,ct,arr); return f
rng=np.random.default_rng(0)
s,scale=256,4
from PIL import Image
small=rng.random((16,16,3)).astype(np.float32)
big=np.clip(np.array(Image.fromarray((small*255).astype(np.uint8)).resize((s*scale,s*scale),3),np.float32)/255+rng.normal(0,.05,(s*scale,s*scale,3)).astype(np.float32),-.1,1.1)[None].astype(np.float32)
img=(rng.integers(0,256,(1,s,s,3))/np.float32(255)).astype(np.float32)
ti=torch.from_numpy(img).permute(0,3,1,2)
out=np.empty((1,s*scale,s*scale,3),np.uint8)
def tor(x):
    torch.isfinite(_extremes(x)).all()
    levels,rows=_check(x.mul_(255.),ti); torch.from_numpy(out).copy_(levels.permute(0,2,3,1)); return rows
f=filt(s,scale)
out2=np.empty_like(out)
def cc(x):
    e=np.empty((1,2),np.float32); o=np.empty(1,np.int64); er=np.empty(1,np.float32); n=x.size
    lib.scan_tiles(x.ctypes.data,1,n,1.0,None,None,e.ctypes.data,o.ctypes.data,1)
    lib.scan_tiles(x.ctypes.data,1,n,255.0,out2.ctypes.data,None,e.ctypes.data,o.ctypes.data,1)
    lib.measure_way_back(out2.ctypes.data,img.ctypes.data,1,s,s,scale,ctypes.byref(f),ctypes.byref(f),er.ctypes.data,1)
    return e,o/n,er
A,B=[],[]
with torch.inference_mode():
  for _ in range(12):
    a=torch.from_numpy(big.copy()).permute(0,3,1,2); b=big.copy()
    t=time.process_time(); r=tor(a); A.append(time.process_time()-t)
    t=time.process_time(); q=cc(b); B.append(time.process_time()-t)
print(r,q,(out!=out2).sum(), "torch %.1f ms C %.1f"%(1e3*min(A),1e3*min(B)))
